"""Where events come from: files, labelled folders, and a simulated camera before moving scenes."""

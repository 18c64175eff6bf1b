"""An emulator of a many-core chip: cores on a mesh, in integers, and a compiler that brings networks onto it."""

"""Local rules fused with their neurons, global corrections, and learners. One model per file."""

"""Every layer type against its own cases, and against what others say it should compute."""

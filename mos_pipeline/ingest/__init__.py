"""Reading other people's files: one module per format, and where an interrupted reading goes on."""

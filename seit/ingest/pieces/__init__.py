"""Jobs in pieces: one tar, or one range of rows, at a time; nothing lists the whole corpus."""

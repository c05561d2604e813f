"""Jobs in pieces: one tar, range of rows or share of folders at a time; nothing lists the whole corpus."""

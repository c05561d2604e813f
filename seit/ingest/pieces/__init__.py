"""Jobs in pieces: one tar, range of rows or share of folders at a time, without a listing."""

"""Folders of small files."""


def plant(root, files):
    """Write files below ``root``, and return it.

    ``files`` maps relative paths to bytes or text, or lists paths alone, of files that hold "x".
    """
    contents = files if isinstance(files, dict) else dict.fromkeys(files, "x")
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def tree(folder):
    """Relative path → bytes of every file, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }

"""What exceptions of other people's code say, as text that any file and terminal takes."""


def tell_error(error: BaseException) -> str:
    """Name an exception and give its text, whose own code may fail to make it."""
    name = type(error).__name__
    try:
        return writable(f"{name}: {error}")
    except Exception:  # noqa: BLE001  (it's the user's code, and another failure is being told)
        return f"<{name} without a text>"


def writable(text: str) -> str:
    """Give the text with halves of characters escaped, which no file or terminal takes."""
    return text.encode("utf-8", "backslashreplace").decode()

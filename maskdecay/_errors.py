"""Other people's errors, in one line."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or `no message`."""
    return (str(error).strip().splitlines() or ["no message"])[0]

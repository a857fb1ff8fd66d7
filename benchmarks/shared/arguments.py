"""What the arguments of several commands are read as: a picture's size, and a count."""

from __future__ import annotations

from argparse import ArgumentTypeError

from runtime.errors import InputError


def size(text: str) -> tuple[int, int]:
    """(width, height) in pixels of a text such as "1280x720". Raises InputError on another."""
    try:
        width, height = (int(part) for part in text.split("x"))
        if min(width, height) < 1:
            raise ValueError(text)
    except ValueError as error:
        raise InputError(f"--size is {text!r}, expected WIDTHxHEIGHT such as 1280x720") from error
    return width, height


def count(text: str) -> int:
    """A number from 1 on, for argparse, which says so of another."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r}, expected a whole number from 1 on")
    return number

"""Writes the page and its pictures."""

from bench.numbers.page import main

main()

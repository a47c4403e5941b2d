"""The scoreboard of detection, as one of the things that can be measured."""

from bench import detection
from bench.cases.common import Bench


def detection_board(bench: Bench) -> None:
    """Grade Stayline beside other detectors, tuned to its false alerts, on telcos of several seeds and mixes."""
    board = detection.run(bench.options.telcos)
    for line in detection.report(board):
        bench.report.say(line)
    bench.report.record(
        "detection", rows=[{"name": row.name, "marks": row.marks} for row in board.rows], curves=board.curves
    )
    bench.report.pictures["recall"] = detection.draw(board)

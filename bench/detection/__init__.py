"""The scoreboard: Stayline beside the rule sold today, other detectors, and a bound, at equal false alarms."""

from bench.detection.board import Board, Row, detection, draw, report, run

__all__ = ["Board", "Row", "detection", "draw", "report", "run"]

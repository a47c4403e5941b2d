"""The scoreboard: Stayline beside the rule sold today, other detectors, and a bound, at equal false alarms."""

from bench.detection.board import TELCOS, Board, Row, draw, report, run

__all__ = ["TELCOS", "Board", "Row", "draw", "report", "run"]

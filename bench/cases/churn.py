"""Who will leave, on a table of one's own; what helps, on a market where the truth is known."""

from pathlib import Path

from bench.cases.common import Bench
from bench.churn.market import Played, draw_market, estimates, fixed_policies, graded, played
from bench.churn.report import churn_table
from schemas.errors import ConfigError

SEED = 1


def churn(bench: Bench) -> None:
    """Stream a churn table through the models, beside others.

    Raises:
        ConfigError: no table was given, or it cannot be read.
    """
    options = bench.options
    if options.table is None or options.label is None or options.identity is None:
        raise ConfigError(["bench churn: needs --table FILE --label COLUMN --id COLUMN, a CSV file, a customer a row"])
    churn_table(bench.report, Path(options.table), options.label, options.identity)


def market(bench: Bench) -> None:
    """Choose remedies in markets of growing size, against an oracle, chance, and simple policies."""
    for cases in bench.options.markets:
        drawn = draw_market(cases, SEED)
        actions, ledger = played(drawn, SEED)
        bench.report.say(f"market of {cases:,} cases")
        for policy, taken in {"bandit": actions, **fixed_policies(drawn, SEED)}.items():
            _row(bench, cases, graded(drawn, policy, taken))
        for one in estimates(ledger):
            bench.report.record("estimate", cases=cases, estimate=one)
            bench.report.say(
                f"from the log of {one.decisions:,} decisions, {one.policy}: {one.dr / 100:,.2f} a case doubly robust "
                f"(+- {one.dr_error / 100:,.2f}), {one.ips / 100:,.2f} by propensities (+- {one.ips_error / 100:,.2f})"
            )
        bench.report.say()


def _row(bench: Bench, cases: int, one: Played) -> None:
    bench.report.record("market", cases=cases, played=one)
    bench.report.row(
        {
            "": one.policy,
            "gain": f"{one.gain_minor / 100:,.0f}",
            "regret": f"{one.regret:.1%}",
            "last quarter": f"{one.late_regret:.1%}",
            "contacts": f"{one.contacts:,}",
            "gain/contact": f"{one.saved_minor_per_contact / 100:,.2f}",
            "kept": f"{one.saved:,.0f}",
        }
    )

import datetime as dt
import itertools
from pathlib import Path

import pytest

from dataflows.checkpoints import KEPT, Checkpoints
from dataflows.execution import execute
from dataflows.flow import Stop, build
from dataflows.inputs.files import FileReader, Place
from schemas.alerts import Notification
from schemas.errors import InputError, StateError

OFTEN = dt.timedelta(0)
"""An epoch so short that every batch is followed by a checkpoint."""
SELDOM = dt.timedelta(hours=1)
CALLS = 12
EXPECTED = [*(f"c{number}-{number}" for number in range(1, CALLS + 1)), f"end-{CALLS}"]


class Counter:
    """An engine whose every word depends on all that it has seen: a call lost or counted twice is heard for ever."""

    def __init__(self):
        self.seen = 0

    def apply(self, batch):
        out = []
        for name in batch.calls.call_id:
            self.seen += 1
            out.append(notice(f"{name}-{self.seen}"))
        return out

    def finish(self):
        return [notice(f"end-{self.seen}")]

    def gather(self):
        pass

    def changes(self, number):
        return {"floor": number, "seen": self.seen}

    def resume(self, states):
        (self.seen,) = [state["seen"] for state in states]


def notice(identity):
    return Notification(identity, "stayline.alert.opened", "case", 1, 0, b"{}")


class Deployment:
    """One input, one state folder, and what was told, over several runs."""

    def __init__(self, folder):
        self.folder = folder
        self.events = folder / "events.ndjson"
        lines = [
            b'{"type":"call","call_id":"c%d","customer_id":"k","start_ms":1,"end_ms":2}\n' % number
            for number in range(1, CALLS + 1)
        ]
        lines.insert(CALLS // 2, b"broken\n")
        self.events.write_bytes(b"".join(lines))
        self.told, self.letters, self.opened, self.passed = [], [], [], []

    def run(self, *, epoch=OFTEN, stop=None, write=None, letters=None, sync=None, engine=None, before=lambda _: None):
        def open_input(place):
            self.opened.append(place)
            reader = FileReader([self.events], Place() if place is None else Place(*place), chunk_bytes=80)
            for cut in reader:
                before(cut)
                yield cut

        checkpoints = Checkpoints(self.folder / "engine")
        flow = build(
            open_input,
            Counter() if engine is None else engine,
            self.told.extend if write is None else write,
            self.letters.extend if letters is None else letters,
            Stop() if stop is None else stop,
            ends=True,
            sync_dead_letters=(lambda: None) if sync is None else sync,
            checkpoints=checkpoints,
            passed=lambda place: self.passed.append((place, len(list((self.folder / "engine").iterdir())))),
        )
        execute(flow, self.folder / "recovery", epoch, checkpoints.settle)

    def run_up_to(self, line):
        """Run until a line is read, with one checkpoint at the end."""
        stop = Stop()
        self.run(stop=stop, before=lambda cut: stop.set() if cut.place.line >= line else None, epoch=SELDOM)

    def ids(self):
        return [one.id for one in self.told]


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path)


def failing_at(number, write, error):
    """Write until the call of that number, which raises."""
    calls = itertools.count()

    def attempt(values):
        if next(calls) == number:
            raise error
        write(values)

    return attempt


class TestRestart:
    @pytest.mark.parametrize("epoch", [OFTEN, SELDOM])
    def test_undisturbed_everything_is_told_once_in_order(self, deployment, epoch):
        deployment.run(epoch=epoch)
        assert deployment.ids() == EXPECTED
        assert [letter.at for letter in deployment.letters] == [f"{deployment.events}:{CALLS // 2 + 1}"]

    @pytest.mark.parametrize("epoch", [OFTEN, SELDOM])
    @pytest.mark.parametrize("number", range(CALLS + 1))
    def test_a_sink_that_fails_anywhere_loses_and_changes_nothing(self, deployment, number, epoch):
        with pytest.raises(StateError, match="no room"):
            deployment.run(write=failing_at(number, deployment.told.extend, StateError("no room")), epoch=epoch)
        assert len(deployment.told) == number
        deployment.run()
        assert list(dict.fromkeys(deployment.ids())) == EXPECTED
        # What the failed write would have told was not passed by a checkpoint.
        assert deployment.ids().index(EXPECTED[number]) >= number

    def test_a_sink_that_fails_again_and_again_gets_on_with_each_try(self, deployment):
        for tries in range(1, CALLS + 1):
            with pytest.raises(StateError):
                deployment.run(write=failing_at(1, deployment.told.extend, StateError("no room")))
            assert deployment.ids()[-1] == EXPECTED[tries - 1]
        deployment.run()
        assert list(dict.fromkeys(deployment.ids())) == EXPECTED

    def test_a_dead_letter_that_cannot_be_written_comes_again(self, deployment):
        with pytest.raises(StateError):
            deployment.run(letters=failing_at(0, deployment.letters.extend, StateError("no room")))
        deployment.run()
        assert len(deployment.letters) == 1
        assert list(dict.fromkeys(deployment.ids())) == EXPECTED

    def test_a_dead_letter_that_does_not_get_onto_the_disk_comes_again(self, deployment):
        written = []

        def sync():
            if written and not deployment.letters:
                raise StateError("no room")

        with pytest.raises(StateError):
            deployment.run(letters=written.extend, sync=sync)
        assert len(written) == 1
        deployment.run()
        assert deployment.letters == written
        assert list(dict.fromkeys(deployment.ids())) == EXPECTED

    @pytest.mark.parametrize("number", range(1, CALLS + 2))
    def test_a_stop_anywhere_finishes_the_batch_and_tells_nothing_early(self, deployment, number):
        stop = Stop()
        deployment.run(stop=stop, before=lambda cut: stop.set() if cut.place.line >= number else None, epoch=SELDOM)
        before = deployment.ids()
        # There may be more input: nothing is decided for want of it.
        assert before == EXPECTED[:CALLS][: len(before)]
        deployment.run()
        assert deployment.ids() == EXPECTED, "a stop is no crash: nothing is told twice"

    def test_a_finished_run_that_is_run_again_reads_nothing_again(self, deployment):
        deployment.run()
        deployment.told.clear()
        deployment.run()
        assert deployment.ids() == EXPECTED[-1:]
        assert deployment.opened[-1][0:3] == (0, deployment.events.stat().st_size, CALLS + 1)

    def test_an_input_is_told_only_what_the_kept_checkpoints_have_passed(self, deployment):
        deployment.run()
        lines = [Place(*place).line for place, _ in deployment.passed]
        assert lines == sorted(lines)
        assert 0 < lines[-1] <= CALLS + 1 - (KEPT - 2)
        _, states = deployment.passed[0]
        assert states >= KEPT - 1, "not before so many checkpoints were taken"


class TestFailures:
    """A step that fails ends the run with our error, and nothing else is said."""

    class Broken(Counter):
        def apply(self, _):
            raise StateError("apply says no")

    class Unsaved(Counter):
        def changes(self, _):
            raise StateError("snapshot says no")

    @staticmethod
    def no(_):
        raise InputError("input says no")

    @staticmethod
    def interrupted(_):
        raise KeyboardInterrupt("somebody says no")

    @pytest.mark.parametrize(
        ("part", "error"),
        [
            ({"engine": Broken()}, "apply says no"),
            ({"engine": Unsaved()}, "snapshot says no"),
            ({"before": no}, "input says no"),
            ({"before": interrupted}, "somebody says no"),
            ({"write": failing_at(0, list, StateError("output says no"))}, "output says no"),
            ({"letters": failing_at(0, list, OSError(28, "disk says no"))}, "disk says no"),
        ],
    )
    def test_the_error_comes_out_as_it_was_and_the_engine_is_quiet(self, deployment, part, error, capfd):
        with pytest.raises((StateError, InputError, OSError, KeyboardInterrupt), match=error):
            deployment.run(**part)
        assert capfd.readouterr().err == ""

    def test_a_fault_of_ours_comes_out_as_it_was(self, deployment):
        with pytest.raises(ZeroDivisionError):
            deployment.run(write=failing_at(0, list, ZeroDivisionError()))

    @pytest.mark.parametrize("tear", [lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink])
    def test_a_checkpoint_that_was_not_finished_is_as_if_never_begun(self, deployment, tear):
        for line in (5, 9):
            deployment.run_up_to(line)
        # As after a power cut: the flow's own checkpoint names a file that has no end, or is not there at all.
        newest = max((deployment.folder / "engine").glob("*.state"))
        tear(newest)
        between = deployment.opened[-1]
        deployment.run()
        assert deployment.opened[-1] == between, "the place of the state, not that of the flow's own checkpoint"
        assert list(dict.fromkeys(deployment.ids())) == EXPECTED
        assert len(deployment.ids()) > len(EXPECTED)

    def test_a_state_that_is_gone_is_an_error_that_names_it(self, deployment, capfd):
        deployment.run()
        for path in (deployment.folder / "engine").iterdir():
            path.unlink()
        with pytest.raises(StateError, match=r"engine/\d+\.state: must be readable"):
            deployment.run()
        assert capfd.readouterr().err == ""

    def test_a_state_of_another_deployment_is_refused(self, deployment):
        class Refusing(Counter):
            def resume(self, _):
                raise StateError("state must belong to deployment b, was of a")

        deployment.run()
        with pytest.raises(StateError, match="must belong to deployment"):
            deployment.run(engine=Refusing())


class TestRecoveryFolder:
    def test_a_folder_whose_making_was_killed_is_made_again(self, deployment):
        draft = deployment.folder / ".recovery"
        draft.mkdir()
        (draft / "part-0.sqlite3").write_bytes(b"half")
        (deployment.folder / "recovery").mkdir()
        deployment.run()
        assert deployment.ids() == EXPECTED
        assert not draft.exists()

    def test_it_is_for_this_user_alone(self, deployment):
        deployment.run()
        assert (deployment.folder / "recovery").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("damage", [lambda data: b"x" * len(data), lambda data: data[:5_000] + b"\xff" * 9_000])
    def test_a_damaged_file_is_an_error_that_names_it(self, deployment, damage, capfd):
        deployment.run()
        path = deployment.folder / "recovery/part-0.sqlite3"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(StateError, match=r"part-0.sqlite3: must be an undamaged file of checkpoints, found: \S"):
            deployment.run()
        assert capfd.readouterr().err == ""

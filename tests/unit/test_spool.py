"""The spool: what it accepts it keeps, in order, until a watermark; what it cannot keep becomes a skip record."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from edge_agent.contract import limits, wire
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import EdgewaterError, RejectError, RetryError, StopError
from edge_agent.contract.names import epoch_created_s
from edge_agent.contract.wire import Kind, Reason, Skipped
from edge_agent.spool import NewBatch, Spool, SpoolSettings, read_ledger
from edge_agent.spool_file import FILE_NAME, LOCK_NAME, VERSION
from tests.kit.spooled import DEVICE, accepted, batch, body, open_spool, value_of

MANY = 1000


def messages(spool: Spool, epoch: int, seq: int = 1) -> list[tuple[int, int, bytes]]:
    """(first, last, message) of everything the spool would send of `epoch` from `seq` on."""
    return [(held.seq_first, held.seq_last, held.message) for held in spool.read(epoch, seq, 1 << 30, MANY)]


def values(spool: Spool, epoch: int) -> dict[int, float]:
    """seq -> value of each batch of `epoch` that can still be read."""
    return {
        first: value_of(message)
        for first, _, message in messages(spool, epoch)
        if wire.message_header(message).kind is Kind.BATCH
    }


def skips(spool: Spool, epoch: int) -> list[tuple[Reason, list[Skipped]]]:
    """Reason and list of each skip record of `epoch`."""
    found = []
    for _, _, message in messages(spool, epoch):
        header, rest = wire.decode_header(message)
        if header.kind is Kind.SKIP:
            found.append((header.reason, wire.decode_skipped(header, rest)))
    return found


def damage(directory: Path, sql: str) -> None:
    """Change a closed spool behind its back."""
    with sqlite3.connect(directory / FILE_NAME) as database:
        database.execute(sql)
    database.close()


class TestAppend:
    def test_seqs_count_from_one_in_one_epoch(self, tmp_path: Path) -> None:
        """Batches of one priority get 1, 2, 3 in one epoch, over several appends, and read back as they were."""
        spool = open_spool(tmp_path)
        places = accepted(spool, batch(1.0), batch(2.0)) + accepted(spool, batch(3.0))
        assert [place.seq for place in places] == [1, 2, 3]
        (epoch,) = {place.epoch for place in places}
        assert values(spool, epoch) == {1: 1.0, 2: 2.0, 3: 3.0}
        spool.close()

    def test_a_message_carries_its_identity(self, tmp_path: Path) -> None:
        """Device, epoch, seq, stream, rows, function and its version are in the message's header."""
        spool = open_spool(tmp_path)
        new = NewBatch("alarms", 2, body([1.0, 2.0]), "siren", b"12345678", 0)
        (place,) = accepted(spool, new)
        ((_, _, message),) = messages(spool, place.epoch)
        header = wire.message_header(message)
        assert (header.device, header.epoch, header.seq_first) == (DEVICE, place.epoch, 1)
        assert (header.stream, header.rows, header.function) == ("alarms", 2, "siren")
        assert header.function_version == b"12345678"
        spool.close()

    def test_each_priority_has_an_epoch_of_its_own(self, tmp_path: Path) -> None:
        """An epoch is made with the first batch of its priority, not before, and each is later than the last."""
        spool = open_spool(tmp_path)
        assert spool.epochs() == []
        low, high = accepted(spool, batch(1.0, priority=3), batch(2.0, priority=0))
        assert low.epoch != high.epoch
        assert (low.seq, high.seq) == (1, 1)
        assert [(found.epoch, found.priority) for found in spool.epochs()] == [(low.epoch, 3), (high.epoch, 0)]
        assert epoch_created_s(high.epoch) > epoch_created_s(low.epoch)
        spool.close()

    @pytest.mark.parametrize("wrong", [batch(priority=4), batch(stream="no name"), batch(priority=-1)])
    def test_a_wrong_batch_is_refused_alone(self, tmp_path: Path, wrong: NewBatch) -> None:
        """A batch that can never be accepted gets a RejectError, its neighbours are accepted without a gap."""
        spool = open_spool(tmp_path)
        first, refused, second = spool.append([batch(1.0), wrong, batch(2.0)])
        assert isinstance(refused, RejectError)
        assert not isinstance(first, EdgewaterError)
        assert not isinstance(second, EdgewaterError)
        assert (first.seq, second.seq) == (1, 2)
        spool.close()

    def test_a_batch_over_the_limit_is_refused(self, tmp_path: Path) -> None:
        """A batch longer than a message may be is refused for good, with both numbers."""
        spool = open_spool(tmp_path, settings=SpoolSettings(compress=False))
        (refused,) = spool.append([batch(pad=limits.BATCH_BYTES_MAX)])
        assert isinstance(refused, RejectError)
        assert str(limits.BATCH_BYTES_MAX) in str(refused)
        assert spool.epochs() == []
        spool.close()

    def test_nothing_of_a_failed_transaction_remains(self, tmp_path: Path) -> None:
        """A full disk refuses the whole group with RetryError; the seqs are used by the batches accepted later."""
        spool = open_spool(tmp_path, settings=SpoolSettings(compress=False))
        accepted(spool, batch(1.0))
        (pages,) = spool._run("PRAGMA page_count").fetchone()
        spool._run(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(RetryError, match="free space"):
            spool.append([batch(2.0, pad=100_000), batch(3.0)])
        assert spool.counts.accepted_batches == 1
        spool._run("PRAGMA max_page_count = 1000000")
        (place,) = accepted(spool, batch(4.0))
        assert place.seq == 2
        assert values(spool, place.epoch) == {1: 1.0, 2: 4.0}
        spool.close()

    def test_a_full_disk_does_not_hinder_trimming(self, tmp_path: Path) -> None:
        """With no page left to grow, a watermark still frees what it covers, and then batches are accepted again."""
        spool = open_spool(tmp_path, settings=SpoolSettings(compress=False))
        (place,) = accepted(spool, batch(1.0, pad=100_000))
        (pages,) = spool._run("PRAGMA page_count").fetchone()
        spool._run(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RetryError):
            spool.append([batch(2.0, pad=50_000)])
        spool.trim(place.epoch, 1)
        assert accepted(spool, batch(2.0, pad=50_000))[0].seq == 2
        spool.close()


class TestReopen:
    def test_a_reopened_spool_makes_a_new_epoch(self, tmp_path: Path) -> None:
        """After closing, old epochs are only drained; new batches begin at seq 1 of a later epoch."""
        spool = open_spool(tmp_path)
        (old,) = accepted(spool, batch(1.0))
        spool.close()
        spool = open_spool(tmp_path, first_random=1)
        (new,) = accepted(spool, batch(2.0))
        assert (new.seq, new.epoch > old.epoch) == (1, True)
        assert [(found.epoch, found.own) for found in spool.epochs()] == [(old.epoch, False), (new.epoch, True)]
        assert values(spool, old.epoch) == {1: 1.0}
        spool.close()

    def test_epochs_count_upwards_although_the_clock_goes_back(self, tmp_path: Path) -> None:
        """A clock that falls back a year does not make an epoch that looks older than one before it."""
        clock = ManualClock()
        created = []
        for _ in range(3):
            spool = open_spool(tmp_path, clock=clock)
            created.append(epoch_created_s(accepted(spool, batch())[0].epoch))
            spool.close()
            clock.jump(-365 * 86_400)
        assert created == sorted(set(created))

    def test_epochs_count_upwards_after_all_were_forgotten(self, tmp_path: Path) -> None:
        """The last creation time is kept apart from the epochs, so that forgetting them does not forget it."""
        clock = ManualClock()
        spool = open_spool(tmp_path, clock=clock)
        (first,) = accepted(spool, batch())
        spool.trim(first.epoch, 1)
        spool.close()
        clock.jump(-1000)
        spool = open_spool(tmp_path, clock=clock)
        spool.forget(first.epoch)
        assert epoch_created_s(accepted(spool, batch())[0].epoch) > epoch_created_s(first.epoch)
        spool.close()

    def test_copies_never_share_an_epoch(self, tmp_path: Path) -> None:
        """A spool and its copy, both opened, append under different epochs: no seq is used for two batches."""
        spool = open_spool(tmp_path / "a")
        accepted(spool, batch(1.0))
        spool.close()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        one, two = open_spool(tmp_path / "a", first_random=10), open_spool(tmp_path / "b", first_random=20)
        assert accepted(one, batch(2.0))[0].epoch != accepted(two, batch(3.0))[0].epoch
        one.close()
        two.close()

    def test_a_watermark_outlives_the_process(self, tmp_path: Path) -> None:
        """What was trimmed stays trimmed, and the epoch's watermark and last seq are known after a restart."""
        spool = open_spool(tmp_path)
        (place, *_) = accepted(spool, batch(1.0), batch(2.0), batch(3.0))
        spool.trim(place.epoch, 2)
        spool.close()
        spool = open_spool(tmp_path)
        (epoch,) = spool.epochs()
        assert (epoch.watermark, epoch.last_seq, epoch.own) == (2, 3, False)
        assert values(spool, place.epoch) == {3: 3.0}
        assert (spool.batches, spool.drained) == (1, False)
        spool.close()

    def test_a_drained_epoch_is_known_until_it_is_forgotten(self, tmp_path: Path) -> None:
        """An empty epoch of an earlier opening is still there to be closed; only drained, old ones are forgotten."""
        spool = open_spool(tmp_path)
        (place,) = accepted(spool, batch())
        with pytest.raises(RejectError, match="not to be forgotten"):
            spool.forget(place.epoch)
        spool.trim(place.epoch, 1)
        with pytest.raises(RejectError, match="this opening"):
            spool.forget(place.epoch)
        spool.close()
        spool = open_spool(tmp_path)
        assert [(found.watermark, found.last_seq) for found in spool.epochs()] == [(1, 1)]
        spool.forget(place.epoch)
        assert spool.epochs() == []
        spool.close()
        assert open_spool(tmp_path).epochs() == []


class TestTrim:
    def test_trimming_goes_in_slices(self, tmp_path: Path) -> None:
        """One call deletes 256 messages at most and says whether more are left; the watermark counts from the first."""
        spool = open_spool(tmp_path)
        (place, *_) = accepted(spool, *(batch(float(i)) for i in range(600)))
        more = [spool.trim(place.epoch, 599), spool.trim(place.epoch, 599), spool.trim(place.epoch, 599)]
        assert more == [True, True, False]
        assert values(spool, place.epoch) == {600: 599.0}
        assert spool.counts.trimmed_batches == 599
        spool.close()

    def test_a_lower_watermark_changes_nothing(self, tmp_path: Path) -> None:
        """A watermark never goes back, and one above the last seq counts as the last seq."""
        spool = open_spool(tmp_path)
        (place, *_) = accepted(spool, batch(1.0), batch(2.0), batch(3.0))
        spool.trim(place.epoch, 2)
        spool.trim(place.epoch, 1)
        assert spool.epochs()[0].watermark == 2
        spool.trim(place.epoch, 1000)
        assert (spool.epochs()[0].watermark, spool.drained, spool.bytes) == (3, True, 0)
        assert accepted(spool, batch(4.0))[0].seq == 4
        spool.close()

    def test_the_file_does_not_grow_under_steady_traffic(self, tmp_path: Path) -> None:
        """Pages of trimmed batches are used again: ten times as many batches do not make the file larger."""
        spool = open_spool(tmp_path, settings=SpoolSettings(compress=False))
        sizes = []
        for _ in range(10):
            (place, *_) = accepted(spool, *(batch(pad=10_000) for _ in range(20)))
            spool.trim(place.epoch, 1 << 40)
            spool._run("PRAGMA wal_checkpoint")
            sizes.append((tmp_path / FILE_NAME).stat().st_size)
        assert sizes[-1] <= sizes[1] * 1.1
        spool.close()


class TestOverflow:
    @staticmethod
    def small(tmp_path: Path, policy: str) -> Spool:
        """A spool for about ten batches of 1,000 bytes."""
        settings = SpoolSettings(bytes_max=13_500, policy=policy, compress=False)
        return open_spool(tmp_path, settings=settings)

    def test_reject_keeps_what_there_is(self, tmp_path: Path) -> None:
        """Policy reject answers RetryError without dropping; after a watermark there is room again."""
        spool = self.small(tmp_path, "reject")
        answers = spool.append([batch(float(i), pad=1000) for i in range(15)])
        refused = [answer for answer in answers if isinstance(answer, RetryError)]
        assert len(refused) == 5
        assert "13500" in str(refused[0])
        epoch = spool.epochs()[0].epoch
        assert len(values(spool, epoch)) == 10
        spool.trim(epoch, 1)
        assert accepted(spool, batch(99.0, pad=1000))[0].seq == 11
        assert spool.counts.dropped_batches == 0
        spool.close()

    def test_drop_oldest_leaves_skip_records(self, tmp_path: Path) -> None:
        """Policy drop-oldest drops no more than it must, oldest first; one skip record says which, with their rows."""
        spool = self.small(tmp_path, "drop-oldest")
        places = accepted(spool, *(batch(float(i), pad=1000, rows=1) for i in range(15)))
        epoch = places[0].epoch
        held = values(spool, epoch)
        assert set(held) == set(range(16 - len(held), 16))
        ((reason, listed),) = skips(spool, epoch)
        assert reason is Reason.DROPPED
        assert listed == [Skipped(seq, "readings", 1) for seq in range(1, 16 - len(held))]
        assert (spool.counts.dropped_batches, spool.counts.dropped_rows) == (len(listed), len(listed))
        assert spool.bytes <= 13_500
        spool.close()

    def test_what_is_under_way_is_not_dropped(self, tmp_path: Path) -> None:
        """Batches that were sent already are kept, since most of them will arrive; later ones are dropped instead."""
        spool = self.small(tmp_path, "drop-oldest")
        (place, *_) = accepted(spool, *(batch(float(i), pad=1000) for i in range(10)))
        spool.protect({place.epoch: 4})
        accepted(spool, batch(10.0, pad=1000), batch(11.0, pad=1000))
        assert {1, 2, 3, 4} < set(values(spool, place.epoch))
        assert [item.seq for item in skips(spool, place.epoch)[0][1]] == [5, 6]
        spool.close()

    def test_drop_lowest_priority_spares_the_important(self, tmp_path: Path) -> None:
        """Policy drop-lowest-priority drops the least important first, and never for a less important batch."""
        spool = self.small(tmp_path, "drop-lowest-priority")
        (low, *_) = accepted(spool, *(batch(float(i), pad=1000, priority=3) for i in range(5)))
        (high, *_) = accepted(spool, *(batch(float(i), pad=1000, priority=0) for i in range(8)))
        assert len(values(spool, high.epoch)) == 8
        assert set(values(spool, low.epoch)) == {4, 5}
        accepted(spool, *(batch(float(i), pad=1000, priority=0) for i in range(2)))
        assert values(spool, low.epoch) == {}
        (refused,) = spool.append([batch(pad=1000, priority=2)])
        assert isinstance(refused, RetryError)
        spool.close()

    def test_skip_records_are_bounded(self, tmp_path: Path) -> None:
        """Dropping for ever does not fill the spool with skip records: the oldest lose their lists and are joined."""
        spool = open_spool(tmp_path, settings=SpoolSettings(bytes_max=9000, policy="drop-oldest", compress=False))
        streams = [f"s{number}" for number in range(300)]
        for number in range(1200):
            accepted(spool, batch(stream=streams[number % 300], pad=300))
        epoch = spool.epochs()[0].epoch
        assert spool.bytes <= 9000
        covered = [seq for first, last, _ in messages(spool, epoch) for seq in range(first, last + 1)]
        assert covered == list(range(1, 1201))
        assert len(values(spool, epoch)) >= 10
        spool.close()


class TestDamage:
    def test_a_damaged_batch_becomes_a_skip_record(self, tmp_path: Path) -> None:
        """A message that is not what was written is replaced by a skip record with its rows; others are kept."""
        spool = open_spool(tmp_path)
        (place, *_) = accepted(spool, batch(1.0), batch(2.0, rows=7), batch(3.0))
        spool.close()
        damage(tmp_path, "UPDATE messages SET message = zeroblob(40) WHERE seq_first = 2")
        spool = open_spool(tmp_path)
        assert values(spool, place.epoch) == {1: 1.0, 3: 3.0}
        assert skips(spool, place.epoch) == [(Reason.DAMAGED, [Skipped(2, "readings", 7)])]
        assert (spool.counts.damaged_batches, spool.counts.damaged_rows) == (1, 7)
        spool.close()
        spool = open_spool(tmp_path)
        assert skips(spool, place.epoch) == [(Reason.DAMAGED, [Skipped(2, "readings", 7)])]
        assert spool.counts.damaged_batches == 0
        spool.close()

    @pytest.mark.parametrize(("lost", "gap"), [("seq_first IN (2, 3)", (2, 3)), ("seq_first = 1", (1, 1))])
    def test_rows_that_are_gone_become_a_skip_record(self, tmp_path: Path, lost: str, gap: tuple[int, int]) -> None:
        """Seqs that the file has no message for any more are skipped, though nobody knows what was in them."""
        spool = open_spool(tmp_path)
        (place, *_) = accepted(spool, *(batch(float(i)) for i in range(5)))
        spool.close()
        damage(tmp_path, f"DELETE FROM messages WHERE {lost}")
        spool = open_spool(tmp_path)
        found = messages(spool, place.epoch)
        assert gap in [(first, last) for first, last, _ in found]
        assert [seq for first, last, _ in found for seq in range(first, last + 1)] == [1, 2, 3, 4, 5]
        assert skips(spool, place.epoch) == [(Reason.DAMAGED, [])]
        spool.close()

    def test_a_damaged_skip_record_still_skips(self, tmp_path: Path) -> None:
        """A skip record that was damaged is made anew without its list; the reason is then damage."""
        spool = TestOverflow.small(tmp_path, "drop-oldest")
        (place, *_) = accepted(spool, *(batch(float(i), pad=1000) for i in range(15)))
        ((_, listed),) = skips(spool, place.epoch)
        spool.close()
        damage(tmp_path, "UPDATE messages SET crc32 = crc32 + 1 WHERE kind = 2")
        spool = open_spool(tmp_path)
        first, last, _ = messages(spool, place.epoch)[0]
        assert (first, last) == (1, len(listed))
        assert skips(spool, place.epoch) == [(Reason.DAMAGED, [])]
        spool.close()

    def test_a_damaged_database_stops_the_agent(self, tmp_path: Path) -> None:
        """When SQLite itself finds the file damaged, the error says what a person can do."""
        spool = open_spool(tmp_path, settings=SpoolSettings(compress=False))
        accepted(spool, *(batch(pad=3000) for _ in range(50)))
        spool.close()
        data = bytearray((tmp_path / FILE_NAME).read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        (tmp_path / FILE_NAME).write_bytes(data)
        with pytest.raises(StopError, match="recover"):
            open_spool(tmp_path)


class TestRead:
    def test_reading_keeps_to_bytes_and_count(self, tmp_path: Path) -> None:
        """At most so many bytes and messages, yet one in any case, from the message that covers the seq asked for."""
        spool = open_spool(tmp_path, settings=SpoolSettings(compress=False))
        (place, *_) = accepted(spool, *(batch(float(i), pad=1000) for i in range(10)))
        size = place.bytes
        assert [held.seq_first for held in spool.read(place.epoch, 3, 3 * size, MANY)] == [3, 4, 5]
        assert [held.seq_first for held in spool.read(place.epoch, 3, 1, MANY)] == [3]
        assert [held.seq_first for held in spool.read(place.epoch, 9, 1 << 20, 1)] == [9]
        assert spool.read(place.epoch, 11, 1 << 20, MANY) == []
        spool.close()

    def test_reading_inside_a_skip_record_gives_all_of_it(self, tmp_path: Path) -> None:
        """A skip record that was joined after a part of it was sent is sent as a whole; the fold takes the new part."""
        spool = TestOverflow.small(tmp_path, "drop-oldest")
        (place, *_) = accepted(spool, *(batch(float(i), pad=1000) for i in range(15)))
        ((_, listed),) = skips(spool, place.epoch)
        held = spool.read(place.epoch, len(listed) - 1, 1 << 20, 1)
        assert (held[0].seq_first, held[0].seq_last) == (1, len(listed))
        spool.close()


class TestFile:
    def test_two_processes_cannot_share_a_spool(self, tmp_path: Path) -> None:
        """The second opening fails at once, and says so; after closing it succeeds."""
        spool = open_spool(tmp_path)
        with pytest.raises(StopError, match="in use by another process"):
            open_spool(tmp_path)
        spool.close()
        open_spool(tmp_path).close()

    def test_a_newer_version_is_left_alone(self, tmp_path: Path) -> None:
        """A spool of a version this program does not know is refused, untouched."""
        open_spool(tmp_path).close()
        damage(tmp_path, f"PRAGMA user_version = {VERSION + 1}")
        before = (tmp_path / FILE_NAME).read_bytes()
        with pytest.raises(StopError, match=f"version {VERSION + 1}, this program knows {VERSION}"):
            open_spool(tmp_path)
        assert (tmp_path / FILE_NAME).read_bytes() == before

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        """Any other file in the spool's place is refused by its first bytes, and the folder stays usable."""
        (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to look at")
        with pytest.raises(StopError, match="no SQLite file"):
            open_spool(tmp_path)
        (tmp_path / FILE_NAME).unlink()
        open_spool(tmp_path).close()

    def test_another_programs_database(self, tmp_path: Path) -> None:
        """An SQLite file that is no spool is refused."""
        damage(tmp_path, "CREATE TABLE notes (text)")
        with pytest.raises(StopError, match="another program's"):
            open_spool(tmp_path)

    def test_another_devices_spool(self, tmp_path: Path) -> None:
        """A spool keeps its device's name: opened for another it says which."""
        open_spool(tmp_path).close()
        with pytest.raises(StopError, match=f"belongs to device '{DEVICE}'"):
            open_spool(tmp_path, device="other")

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        """A path below a file is refused with the system's reason."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StopError, match="cannot be used"):
            open_spool(tmp_path / "file" / "spool")

    def test_the_lock_file_is_beside_the_spool(self, tmp_path: Path) -> None:
        """The lock is a file of its own: SQLite's own locks are dropped when any handle of its file is closed."""
        open_spool(tmp_path).close()
        assert {LOCK_NAME, FILE_NAME} <= {path.name for path in tmp_path.iterdir()}

    def test_commits_are_synced(self, tmp_path: Path) -> None:
        """WAL and synchronous=FULL are what the promise rests on."""
        spool = open_spool(tmp_path)
        assert spool._run("PRAGMA journal_mode").fetchone() == ("wal",)
        assert spool._run("PRAGMA synchronous").fetchone() == (2,)
        spool.close()


class TestLedger:
    def test_the_ledger_keeps_what_was_trimmed(self, tmp_path: Path) -> None:
        """With `ledger` on, every accepted message can be read in order, also while the spool is open."""
        spool = open_spool(tmp_path, settings=SpoolSettings(ledger=True))
        (place, *_) = accepted(spool, batch(1.0), batch(2.0))
        sent = [message for _, _, message in messages(spool, place.epoch)]
        spool.trim(place.epoch, 2)
        assert list(read_ledger(tmp_path)) == sent
        spool.close()
        assert list(read_ledger(tmp_path / FILE_NAME)) == sent

    def test_without_the_setting_there_is_none(self, tmp_path: Path) -> None:
        """The ledger is off by default, since it grows without bound."""
        spool = open_spool(tmp_path)
        accepted(spool, batch())
        spool.close()
        assert list(read_ledger(tmp_path)) == []

    def test_no_spool_no_ledger(self, tmp_path: Path) -> None:
        """A wrong path is an error that names it, and makes no file."""
        with pytest.raises(StopError, match="no spool at"):
            list(read_ledger(tmp_path))
        assert list(tmp_path.iterdir()) == []


def test_batches_are_accepted_together_with_properties(tmp_path: Path) -> None:
    """Followers come right behind their batch, in its transaction, and so do the properties; all or nothing."""
    spool = open_spool(tmp_path, settings=SpoolSettings(bytes_max=8_000, compress=False))
    unit = dataclasses.replace(batch(1.0), followers=(batch(2.0), batch(3.0)), properties={"replay:a": "1"})
    (place,) = accepted(spool, unit)
    assert (place.seq, spool.batches, spool.counts.accepted_batches) == (3, 3, 3)
    held = spool.read(place.epoch, 1, 1 << 20, 10)
    assert [value_of(each.message) for each in held] == [1.0, 2.0, 3.0]
    large = dataclasses.replace(batch(4.0), followers=(batch(5.0, pad=7_900),), properties={"replay:a": "2"})
    (refused,) = spool.append([dataclasses.replace(large, followers=(*large.followers, batch(6.0)))])
    assert isinstance(refused, EdgewaterError)
    assert (spool.batches, spool.properties("replay:")) == (3, {"replay:a": "1"})
    accepted(spool, dataclasses.replace(batch(7.0), properties={"replay:a": None, "replay:b": "3"}))
    spool.close()
    spool = open_spool(tmp_path)
    assert spool.properties("replay:") == {"replay:b": "3"}
    assert spool.properties("") == {"replay:b": "3"}
    spool.write_properties({"replay:b": "4"})
    with pytest.raises(RejectError, match="the spool's own"):
        spool.write_properties({"device": "other"})
    assert spool.properties("replay:") == {"replay:b": "4"}
    spool.close()

"""What a report tells of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from export.report.clip_scores import FrameScore, Shown
from export.report.records import Gate, Search
from export.report.try_member import Trial
from runtime.bundle import least_parity
from runtime.files.manifest import Manifest, Member


@dataclass(frozen=True)
class MemberResult:
    """A member, as the manifest tells it and as it did here."""

    member: Member
    trial: Trial | None  # None where it does not run here
    failure: str = ""  # why not
    psnr: float | None = None  # dB of luma, mean over the frames that are not equal to the truth; None where that is not known


@dataclass(frozen=True)
class Facts:
    """All that the page tells."""

    name: str  # of the bundle
    manifest: Manifest
    missing: tuple[str, ...]  # files of the bundle that are not there
    made: str  # when the page was made, ISO 8601
    clip: str  # name
    truth: str | None  # name
    members: tuple[MemberResult, ...]
    used: str | None  # file of the member whose frames are shown; None where none runs here
    scores: tuple[FrameScore, ...]
    shown: Shown | None
    notes: tuple[str, ...]  # about the pictures
    gates: tuple[Gate, ...]
    searches: Mapping[str, Search]
    environment: Mapping[str, str]

    @property
    def trial(self) -> Trial | None:
        """Of the member whose frames are shown."""
        return next((result.trial for result in self.members if result.member.file == self.used), None)

    @property
    def machine(self) -> str:
        """Where the figures of this page were measured."""
        cpu = self.environment["CPU"]
        return f"{self.trial.machine}, beside {cpu}" if self.trial and self.trial.machine else cpu

    def least_parity(self, result: MemberResult) -> float | None:
        """dB that the golden frames must reach, by the precision and the arithmetic it ran in; None where it did not run."""
        if result.trial is None:
            return None
        io = self.manifest.goldens[result.member.golden].io
        return least_parity(result.trial.precision, result.member.precision, io)

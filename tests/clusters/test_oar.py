"""Calls in jobs of a real OAR."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.clusters.daemons import BatchSystem
from tests.clusters.jobs import BatchContract, is_wanted
from tests.clusters.oar import OAR
from tests.executors.contract import Gate, open_gate

pytestmark = [is_wanted, pytest.mark.timeout(900)]  # the first one may have to install it


class TestOAR(BatchContract):
    system_class = OAR
    options = {"memory_per_core_property_name": "not_applicable"}
    refused = {"queue": "nowhere"}
    refusal = "nowhere"
    never = "oarsub --hold"

    @pytest.fixture(autouse=True)
    def system(
        self, lent: Callable[[type[BatchSystem]], BatchSystem], tmp_path: Path
    ) -> Iterator[BatchSystem]:
        # Jobs are an ordinary user's, and pytest's folders are for root only.
        with tempfile.TemporaryDirectory(prefix="amltk-nb-oar-jobs-") as folder:
            self._folder = Path(folder)
            self._folder.chmod(0o777)
            yield lent(self.system_class)

    @pytest.fixture
    async def gate(self) -> AsyncIterator[Gate]:
        async with open_gate() as gate:
            Path(gate.path).chmod(0o777)
            Path(gate.path).parent.chmod(0o755)
            yield gate

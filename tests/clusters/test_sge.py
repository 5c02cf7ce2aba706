"""Calls in jobs of a real Grid Engine."""

from __future__ import annotations

import pytest

from tests.clusters.jobs import BatchContract, is_wanted
from tests.clusters.sge import GridEngine

pytestmark = [is_wanted, pytest.mark.timeout(400)]  # the first one may have to install it


class TestGridEngine(BatchContract):
    system_class = GridEngine
    refused = {"queue": "nowhere"}
    refusal = 'Job was rejected because job requests unknown queue "nowhere"'
    never = "qsub -h"

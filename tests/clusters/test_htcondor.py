"""Calls in jobs of a real HTCondor."""

from __future__ import annotations

import pytest

from tests.clusters.htcondor import HTCondor
from tests.clusters.jobs import BatchContract, is_wanted

pytestmark = [is_wanted, pytest.mark.timeout(900)]  # the first one may have to install it


class TestHTCondor(BatchContract):
    system_class = HTCondor
    options = {"walltime": None, "disk": "100 MB"}
    refused = {"job_extra_directives": {"universe": "nowhere"}}
    refusal = "nowhere"
    never = "condor_submit -append hold=True"

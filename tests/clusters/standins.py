"""Commands of batch systems that no Debian has (PBS, Moab, LSF), in front of a real Slurm.

They are not those systems. What they show is the way of a job: the submit command and its flags,
how its number is read from the answer, a script that runs, the cancel command. Slurm's sbatch
understands `#PBS` and `#BSUB` lines itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["write_standins"]

# $script: a copy of the job's script that sbatch can read.
_SUBMIT = """\
script=$(mktemp)
trap 'rm -f "$script"' EXIT
{read_in} | sed -E {translation} > "$script"
number=$(sbatch --parsable "$script") || exit $?
"""
# PBS takes a folder for its logs where sbatch wants a file.
_PBS_TO_SLURM = r"""-e 's|^(#PBS -[eo] .*)/$|\1/%j.log|'"""
# LSF's memory limit is in units of the site's choice, so it means nothing to sbatch.
_LSF_TO_SLURM = r"""-e '/^#BSUB -M /d'"""

_PBS_SUBMIT = _SUBMIT.format(read_in='cat "${@: -1}"', translation=_PBS_TO_SLURM)
_LSF_SUBMIT = _SUBMIT.format(
    read_in='if [ $# -gt 0 ] && [ -f "${@: -1}" ]; then cat "${@: -1}"; else cat; fi',
    translation=_LSF_TO_SLURM,
)

COMMANDS = {
    "qsub": _PBS_SUBMIT + 'echo "$number.standin"',
    "qdel": 'for id; do scancel "${id%%.*}"; done',
    "qstat": "squeue -h -t PD,CF,R -o '%A.standin %.10j %.8u 0 %t debug' | sed -E 's/ PD / Q /'",
    "msub": _PBS_SUBMIT + 'echo; echo "Moab.$number"',
    "canceljob": 'for id; do scancel "${id#Moab.}"; done',
    "bsub": _LSF_SUBMIT + 'echo "Job <$number> is submitted to default queue <debug>."',
    "bkill": 'for id; do scancel "$id" && echo "Job <$id> is being terminated"; done',
    "bjobs": "squeue -h -t PD,CF,R -o '%A %t' | sed -E -e 's/ PD$/ PEND/' -e 's/ R$/ RUN/'",
}


def write_standins(folder: Path) -> None:
    """Write the commands; each leaves a line with its arguments in `folder/log`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in COMMANDS.items():
        path = folder / name
        note = f"echo \"{name} $*\" >> '{folder}/log'"
        path.write_text("\n".join(["#!/bin/bash", "set -o pipefail", note, body, ""]))
        path.chmod(0o755)


if __name__ == "__main__":
    write_standins(Path(sys.argv[1]).resolve())

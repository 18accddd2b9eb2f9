"""What software is called, and by which program on the PATH it is known to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Software that has no program of its own name: any of these programs shows that it is there.
_SHOWN_BY: Mapping[str, tuple[str, ...]] = {
    "openmpi": ("ompi_info",),
    "mpich": ("mpichversion",),
    "slurm": ("sbatch",),
    "pbs": ("qsub",),
    "blast": ("blastn",),
    "cuda": ("nvcc",),
    "nvidia": ("nvidia-smi",),
    "imagemagick": ("convert", "magick"),
}


def evidence(software: str) -> tuple[str, ...]:
    """The programs that show that software is there: that of its name, and those it is known by."""
    return (software, *_SHOWN_BY.get(software.lower(), ()))


def software_names(programs: Mapping[str, bool]) -> list[str]:
    """The software that is there, from which programs are: by the names of these, and those it goes by."""
    there = {name for name, is_there in programs.items() if is_there}
    there |= {name for name, shown_by in _SHOWN_BY.items() if not there.isdisjoint(shown_by)}
    return sorted(there)


def well_known() -> list[str]:
    """Programs that are worth asking every node about."""
    some = ("apptainer", "awk", "bash", "docker", "gcc", "git", "java", "make", "mpirun", "perl", "python3", "rsync")
    return sorted({*some, "R", "samtools", "singularity", "tar", *(p for ps in _SHOWN_BY.values() for p in ps)})

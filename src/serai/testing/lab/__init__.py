"""The laboratory: real Linux hosts on one machine, for tests and for trying things out.

::

    with Lab.up(2) as lab:
        subprocess.run(["ssh", "-F", lab.ssh_config, "lab1", "hostname"])
        lab.hosts[0].kill()

A host has network, mounts, processes, host name and disk of its own, sshd, and the programs of this machine; its files
are not the machine's. It is no prison: whoever is root in a host can become root outside.
"""

from serai.testing.lab.host import Host
from serai.testing.lab.lab import Lab
from serai.testing.lab.needs import install_requirements, requirements, why_not

__all__ = ["Host", "Lab", "install_requirements", "requirements", "why_not"]

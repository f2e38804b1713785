"""What is wrong with the machine, the configuration, the model and the store, each with the mend; nothing is changed.

finding.py  what a check says     machine.py  cores, memory, /dev/shm, descriptors, the disk
settings.py the configuration and the model     stored.py  the store
"""

from mos_pipeline.doctor.examination import examine
from mos_pipeline.doctor.finding import Area, Finding, Level

__all__ = ["Area", "Finding", "Level", "examine"]

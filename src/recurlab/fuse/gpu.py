"""The former module of `recurlab.fuse.cuda.faults.fault`."""

from recurlab.fuse.cuda.faults import fault as fault

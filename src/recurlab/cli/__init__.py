"""The command line: recurlab train | sweep | study | evaluate | report | generate | explain | bench | completion."""

from recurlab.cli.main import main as main

from loadbench.api import Finding as Finding
from loadbench.api import Run as Run
from loadbench.api import catalogue as catalogue
from loadbench.api import choose as choose
from loadbench.api import compare_models as compare_models
from loadbench.api import probe as probe
from loadbench.api import read as read
from loadbench.api import run as run

__version__: str

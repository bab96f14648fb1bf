"""`python -m slimjax VERB ...`"""

import sys

from slimjax.cli import main

sys.exit(main())

"""`python -m slimjax VERB ...`"""

import sys

from slimjax.verbs.cli import main

sys.exit(main())

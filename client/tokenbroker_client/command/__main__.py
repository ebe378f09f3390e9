"""`python -m tokenbroker_client.command`."""

from __future__ import annotations

import sys

from tokenbroker_client.command.main import main

sys.exit(main())

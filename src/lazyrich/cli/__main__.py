"""``python -m lazyrich.cli``."""

from .main import main

raise SystemExit(main())

"""Checks a model card with Python's own readers: its YAML parses, and its Python lines run, from the card's folder.

Exits with 77 where diffusers is not installed.
"""

import os
import re
import sys

try:
    import yaml
    import diffusers  # noqa: F401
except ImportError:
    sys.exit(77)

os.chdir(sys.argv[1])
text = open("README.md", encoding="utf-8").read()
header = yaml.safe_load(text.split("---")[1])
exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1))
print('{"library_name": "%s", "picture": %s}' % (header["library_name"], str(os.path.exists("picture.png")).lower()))

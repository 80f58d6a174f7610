"""The verbs behind the notebooks. Import rooms by name: ``from saeutils import probing``.

Importing the package itself loads nothing, so that a notebook pays only for the rooms it uses.
"""

__version__ = "0.1.0"

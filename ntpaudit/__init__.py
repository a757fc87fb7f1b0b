"""How wrong can this host's clock be, how sure is that, and what does it do to the logs?"""

__version__ = "0.1.0"

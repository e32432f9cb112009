from .use import load as load

__version__: str

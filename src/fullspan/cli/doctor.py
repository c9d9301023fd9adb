"""Show what this machine offers, which versions are installed and what is missing."""
from fullspan.core.config import Config
class DoctorConfig(Config):
    """none"""
def command(config: DoctorConfig) -> None:
    """Show what this machine offers, which versions are installed and what is missing."""
    print("todo")

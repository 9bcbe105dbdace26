"""What test modules share: scripted servers, fakes, declared data."""

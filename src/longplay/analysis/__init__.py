"""What can be heard in a recording by signal processing: tempo, beats, bars, key, structure."""

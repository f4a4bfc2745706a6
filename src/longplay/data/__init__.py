"""Music to train on: packages and rendering in, 48 kHz mono clips with a manifest out."""

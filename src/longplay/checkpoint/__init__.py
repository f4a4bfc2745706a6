"""Models on disk: the native layout, the published layout, and where they come from."""

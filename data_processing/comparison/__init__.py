"""Another metrics table beside ours: where they differ, and by which known rule."""

"""What each network assigns and who teaches: as data, as a page, as figures."""

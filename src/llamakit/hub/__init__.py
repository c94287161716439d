"""Names to files on disk: the catalog, the caches, downloads and created models; knows no tensor."""

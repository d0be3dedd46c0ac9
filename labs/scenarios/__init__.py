"""Parts of labs that are more than a page; the labs themselves are one directory up."""

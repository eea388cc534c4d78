"""Studies: what is asked, run and found is kept in a folder ``experiments/<study>/`` without code."""

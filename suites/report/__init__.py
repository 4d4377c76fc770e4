"""A gate's decisions for people and machines: a pull-request comment, JUnit XML, tables on a terminal."""

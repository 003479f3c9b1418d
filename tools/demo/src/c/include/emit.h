#ifndef DEMO_EMIT_H
#define DEMO_EMIT_H

#include <stdio.h>

/* emit_go writes crc_table as a Go source file of the package named. 0, or -1 if a write failed. */
int emit_go(FILE *to, const char *package);

#endif

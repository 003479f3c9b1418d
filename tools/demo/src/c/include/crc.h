#ifndef DEMO_CRC_H
#define DEMO_CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 as in IEEE 802.3: reflected, polynomial 0xEDB88320. */
#define CRC_POLYNOMIAL 0xEDB88320u

extern uint32_t crc_table[256];

/* crc_init fills crc_table; call it before anything else here. */
void crc_init(void);

/* crc_update continues from crc, which is 0 for the first bytes. */
uint32_t crc_update(uint32_t crc, const void *data, size_t len);

#endif

/* host_ops.h - lets a test give ops of a GPU host memory. SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_OPS_H
#define HOST_OPS_H

struct rz_device;

/* From now on ops of this device take host pointers too: around each op what it reads and writes there is copied to the
 * device and back, with the same alignment. An op that writes elsewhere fails the test. Nothing to do where device
 * memory is host memory. */
void host_ops(struct rz_device *dev);

#endif

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// resumeTime is how long a stream tries to go on after it broke.
const resumeTime = time.Minute

// outcome is what one stream had.
type outcome struct {
	sum     [sha256.Size]byte
	bytes   int64
	resumed int
	codes   map[codes.Code]int
	err     error
}

// follow reads the output of a job n times at once, on one connection. A stream that breaks goes on at its offset, as a program
// has to that follows a job for long. In the end it prints how many streams had the same bytes, and how they broke.
func follow(ctx context.Context, conn *grpc.ClientConn, job string, n int, progress bool) error {
	m, _, err := method(ctx, conn, "StreamLogs")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var first atomic.Int64
	all := make([]outcome, n)
	for i := range all {
		wg.Go(func() {
			all[i] = followOne(ctx, conn, m, job, func() {
				if first.Add(1) == int64(n) && progress {
					fmt.Fprintf(os.Stdout, "all %d have data\n", n)
				}
			})
		})
	}
	wg.Wait()
	same, resumed, broke := 0, 0, map[codes.Code]int{}
	for _, o := range all {
		if o.err != nil {
			return o.err
		}
		if o.sum == all[0].sum {
			same++
		}
		resumed += min(o.resumed, 1)
		for code, times := range o.codes {
			broke[code] += times
		}
	}
	fmt.Printf("streams=%d same=%d resumed=%d bytes=%d sha256=%x\n", n, same, resumed, all[0].bytes, all[0].sum)
	for code := range broke {
		fmt.Println("broke with", code)
	}
	return nil
}

// followOne reads a job's output to its end. first is called with the first data.
func followOne(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, job string, first func()) outcome {
	o := outcome{codes: map[codes.Code]int{}}
	hash := sha256.New()
	var offset int64
	var brokeAt time.Time
	for {
		err := readFrom(ctx, conn, m, job, &offset, func(data []byte) {
			if o.bytes == 0 && len(data) > 0 {
				first()
			}
			o.bytes += int64(len(data))
			hash.Write(data)
			brokeAt = time.Time{}
		})
		if err == nil {
			hash.Sum(o.sum[:0])
			return o
		}
		if brokeAt.IsZero() {
			brokeAt = time.Now()
			o.resumed++
		}
		o.codes[status.Code(err)]++
		if status.Code(err) != codes.Unavailable || time.Since(brokeAt) > resumeTime {
			o.err = err
			return o
		}
		select {
		case <-ctx.Done():
			o.err = ctx.Err()
			return o
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// readFrom reads from *offset on, which it moves behind what data was called with.
func readFrom(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, job string, offset *int64, data func([]byte)) error {
	fields := m.Input().Fields()
	in := dynamicpb.NewMessage(m.Input())
	in.Set(fields.ByName("job"), protoreflect.ValueOfString(job))
	in.Set(fields.ByName("follow"), protoreflect.ValueOfBool(true))
	in.Set(fields.ByName("offset"), protoreflect.ValueOfInt64(*offset))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := open(ctx, conn, m, in)
	if err != nil {
		return err
	}
	for {
		out := dynamicpb.NewMessage(m.Output())
		if err := stream.RecvMsg(out); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		data(out.Get(m.Output().Fields().ByName("data")).Bytes())
		*offset = out.Get(m.Output().Fields().ByName("offset")).Int()
	}
}

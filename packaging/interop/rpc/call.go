package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const service = "rtask.v1.JobService"

// method asks the server what a method of the service takes and returns.
func method(ctx context.Context, conn *grpc.ClientConn, name string) (protoreflect.MethodDescriptor, *dynamicpb.Types, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := stream.Send(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
	}); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	reply, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	if e := reply.GetErrorResponse(); e != nil {
		return nil, nil, status.Error(codes.Code(e.ErrorCode), e.ErrorMessage)
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, raw := range reply.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			return nil, nil, err
		}
		set.File = append(set.File, file)
	}
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(withWellKnown(set))
	if err != nil {
		return nil, nil, err
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		return nil, nil, status.Error(codes.Unimplemented, err.Error())
	}
	m, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, nil, status.Error(codes.Unimplemented, name+" is no method")
	}
	return m, dynamicpb.NewTypes(files), nil
}

// withWellKnown adds the files of Google's that others import and the server did not send.
func withWellKnown(set *descriptorpb.FileDescriptorSet) *descriptorpb.FileDescriptorSet {
	has := map[string]bool{}
	for _, f := range set.File {
		has[f.GetName()] = true
	}
	for _, f := range set.File {
		for _, name := range f.GetDependency() {
			if known, err := protoregistry.GlobalFiles.FindFileByPath(name); err == nil && !has[name] && strings.HasPrefix(name, "google/") {
				has[name] = true
				set.File = append(set.File, protodesc.ToFileDescriptorProto(known))
			}
		}
	}
	return set
}

// call calls a method with a message of JSON, and prints what it returns.
func call(ctx context.Context, conn *grpc.ClientConn, name, message string, to io.Writer) error {
	m, types, err := method(ctx, conn, name)
	if err != nil {
		return err
	}
	in := dynamicpb.NewMessage(m.Input())
	if err := (protojson.UnmarshalOptions{Resolver: types}).Unmarshal([]byte(message), in); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
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
		text, err := protojson.MarshalOptions{Resolver: types}.Marshal(out)
		if err != nil {
			return err
		}
		fmt.Fprintln(to, string(text))
		if !m.IsStreamingServer() {
			return nil
		}
	}
}

// open begins a call that sends one message. A unary one looks the same on the wire.
func open(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, in proto.Message) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+service+"/"+string(m.Name()))
	if err != nil {
		return nil, err
	}
	// What Send does not tell, the first Recv does.
	if err := stream.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	return stream, nil
}
